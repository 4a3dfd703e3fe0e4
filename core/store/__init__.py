"""A campaign's folder: its ledger, its git repository, and the files that trials left."""
