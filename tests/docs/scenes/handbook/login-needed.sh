one
rusd user add root:a-long-one
rusd user grant-role root root
rusd auth enable
rusd put city Bern --user root:a-long-one
