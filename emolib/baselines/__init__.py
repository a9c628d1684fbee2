"""Other systems on the same clips: recipes run, files and published outputs read, joined.

=========================================  ================================================
:func:`emolib.baselines.run.run_systems`   every recipe of a stage, one model open at a time
:func:`emolib.baselines.chat.describe`     a chat model's descriptions of clips
:func:`emolib.baselines.stored.read`       descriptions or labels made elsewhere
:func:`emolib.baselines.joined.join`       several systems' labels as one system's
:mod:`emolib.baselines.released`           published outputs of other models, two readings each
=========================================  ================================================

Two steps, as in the field: a description of every clip, then labels out of it, without a model
(:func:`emolib.summaries.from_text`) or by any LLM (:func:`emolib.summaries.summarise`).
"""
