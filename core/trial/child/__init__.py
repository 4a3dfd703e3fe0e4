"""What runs in the process of the untrusted trainer."""
