rusd cert gen --dir old --days 0 --only server
