"""Figures and animations from arrays; nothing here trains or opens a window."""
