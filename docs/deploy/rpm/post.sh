# After the files are there: the user, the directories. $1 is 1 at an installation, 2 at an upgrade.
systemd-sysusers rusd.conf || :
systemd-tmpfiles --create rusd.conf || :
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
fi
