"""The toy world: the whole method, for real, on a CPU in minutes, with exact truth."""

from pathlib import Path

BASE_MODEL = Path(__file__).parent / "base"
"""The tiny LLaVA that ships with the package: an ordinary Hugging Face folder, made by `opadpo.toy.pretrain`."""
