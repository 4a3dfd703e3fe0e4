"""Views: tables, plots, files and text for a person. They read records and change nothing."""
