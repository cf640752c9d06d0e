"""Hush: PyTorch transformers on prompts no server ever sees."""
