# After the old files are gone: a member that runs gets the new program. Data and keys are never removed.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
    if [ "$1" -ge 1 ]; then
        systemctl try-restart rusd.service || :
    fi
fi
