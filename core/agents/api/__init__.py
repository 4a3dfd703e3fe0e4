"""The agent that thinks with a model behind an API: its conversation, its tools, and what it is shown.

Requests, prices and records of a model's answers are `core.llm`'s.
"""
