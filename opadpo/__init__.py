"""On-policy alignment of vision-language models with expert revisions (OPA-DPO, arXiv 2501.09695)."""

__version__ = "0.1.0"
