rusd cert gen --dir old --days 5 --only server
