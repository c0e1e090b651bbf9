three
stop m2 -KILL
stop m3 -KILL
