"""Pictures of a recording: `recording` draws them, `KINDS` says which there are."""

from .figure import KINDS, recording

__all__ = ["KINDS", "recording"]
