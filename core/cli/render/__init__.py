"""What several commands print: tables, plots, progress. Nothing here changes anything."""
