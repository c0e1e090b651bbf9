use std::process::ExitCode;
fn main() -> ExitCode {
    let mut args: Vec<_> = std::env::args_os().skip(1).collect();
    if args.first().is_some_and(|a| a == "serve") { args.remove(0); }
    rusd::server::main(args)
}
