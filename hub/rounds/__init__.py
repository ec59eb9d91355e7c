"""Rounds: states and rules (pure), the coordinators that apply them, and what people see of them."""
