"""Models behind an API: requests, replies, prices, and the record of both. Knows nothing of trainers or campaigns."""
