three
stop 2 -KILL
stop 3 -KILL
