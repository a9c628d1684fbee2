"""InternVL-Chat-V1.5 and its InternLM2 siblings on today's libraries.

``convert`` turns a published folder into a native one, ``budget`` counts tokens before any
work, ``swift_plugin`` makes ms-swift prompt the converted model as it was trained.
"""
