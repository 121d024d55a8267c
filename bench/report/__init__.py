"""Everything that only reads records: runs, statistics, claims, tables, figures and the page."""
