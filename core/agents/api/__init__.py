"""The agent that proposes with a model behind an API: its conversation, its tools and its prompts.

Requests, prices and the records of answers are in `core.agents.llm`.
"""
