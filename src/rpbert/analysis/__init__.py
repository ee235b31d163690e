"""What a model looks at: attention to the image (Eq. 10, 11)."""

from rpbert.analysis.attention import Explanation, explain, explain_batch

__all__ = ["Explanation", "explain", "explain_batch"]
