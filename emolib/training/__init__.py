"""LoRA fine-tuning by ms-swift in a process of its own: resumable, repeatable, strict."""

from emolib.training.lora import TrainResult, merge_lora, train_lora
from emolib.training.rows import check_rows

__all__ = ["TrainResult", "check_rows", "merge_lora", "train_lora"]
