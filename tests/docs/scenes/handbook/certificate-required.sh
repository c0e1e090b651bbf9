one_tls
