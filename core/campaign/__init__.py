"""A campaign: the loop, one experiment, the verdict, and what is measured again. Start at `campaign.py`."""
