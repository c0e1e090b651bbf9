one
rusd cert gen --dir certs --clients alice
