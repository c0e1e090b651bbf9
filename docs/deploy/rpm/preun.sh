# Before a removal; $1 is 0 then, and 1 before the files of an earlier version go.
if [ "$1" = 0 ] && [ -d /run/systemd/system ]; then
    systemctl --quiet --now disable rusd.service || :
fi
