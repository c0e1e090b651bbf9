# Changes are refused until the members have been connected for five seconds.
three
sleep 5.5
