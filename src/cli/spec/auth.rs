//! etcdctl: users, roles, and enabling auth.

use clap::Command;

use super::{Maker, bytes, flag, switch};

impl Maker {
    pub(super) fn auth(&self) -> Command {
        let short =
            "Enable or disable authentication. Use `etcdctl auth --help` to see subcommands";
        self.group(
            "auth",
            "auth <enable or disable>",
            short,
            vec![
                self.command("enable", "enable", "Enables authentication"),
                self.command("disable", "disable", "Disables authentication"),
                self.command("status", "status", "Returns authentication status"),
            ],
        )
    }

    pub(super) fn role(&self) -> Command {
        let short = "Role related commands. Use `etcdctl role --help` to see subcommands";
        self.group(
            "role",
            "role <subcommand>",
            short,
            vec![
                self.command("add", "add <role name>", "Adds a new role"),
                self.command("delete", "delete <role name>", "Deletes a role"),
                self.command("get", "get <role name>", "Gets detailed information of a role"),
                self.command("list", "list", "Lists all roles"),
                self.command(
                    "grant-permission",
                    "grant-permission [options] <role name> <permission type> <key> [endkey]",
                    "Grants a key to a role",
                )
                .args([
                    flag("prefix", "grant a prefix permission"),
                    flag(
                        "from-key",
                        "grant a permission of keys that are greater than or equal to the given \
                         key using byte compare",
                    ),
                ]),
                self.command(
                    "revoke-permission",
                    "revoke-permission <role name> <key> [endkey]",
                    "Revokes a key from a role",
                )
                .args([
                    flag("prefix", "revoke a prefix permission"),
                    flag(
                        "from-key",
                        "revoke a permission of keys that are greater than or equal to the given \
                         key using byte compare",
                    ),
                ]),
            ],
        )
    }

    pub(super) fn user(&self) -> Command {
        let short = "User related commands. Use `etcdctl user --help` to see subcommands";
        self.group(
            "user",
            "user <subcommand>",
            short,
            vec![
                self.command(
                    "add",
                    "add <user name or user:password> [options]",
                    "Adds a new user",
                )
                .args([
                    switch(
                        "interactive",
                        "Read password from stdin instead of interactive terminal",
                    ),
                    bytes("new-user-password", "", "Supply password from the command line flag"),
                    flag("no-password", "Create a user without password (CN based auth only)"),
                ]),
                self.command("delete", "delete <user name>", "Deletes a user"),
                self.command(
                    "get",
                    "get <user name> [options]",
                    "Gets detailed information of a user",
                )
                .arg(flag("detail", "Show permissions of roles granted to the user")),
                self.command("list", "list", "Lists all users"),
                self.command("passwd", "passwd <user name> [options]", "Changes password of user")
                    .arg(switch(
                        "interactive",
                        "If true, read password from stdin instead of interactive terminal",
                    )),
                self.command(
                    "grant-role",
                    "grant-role <user name> <role name>",
                    "Grants a role to a user",
                ),
                self.command(
                    "revoke-role",
                    "revoke-role <user name> <role name>",
                    "Revokes a role from a user",
                ),
            ],
        )
    }
}
