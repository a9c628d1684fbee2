"""Small models of the real architectures that learned the generated world, and their training.

``python -m emolib.demo.train NAME`` makes one. :mod:`~emolib.demo.pictures` renders what they see,
:mod:`~emolib.demo.texts` says what they should answer, :mod:`~emolib.demo.loop` trains. Each
model has a module of its own. The finished ones lie in ``emolib/nano`` with a model card each
and are addressed as "nano:NAME" (:mod:`emolib.engines.nano`).
"""
