"""One request and its retries, over several HTTP libraries."""
