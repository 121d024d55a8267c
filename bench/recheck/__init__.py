"""`bench recheck`: whether records that older sources made hold under the present ones."""
