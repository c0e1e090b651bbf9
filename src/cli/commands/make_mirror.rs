pub async fn run(_context: crate::cli::context::Context) -> crate::cli::exit::Outcome {
    Err(crate::cli::exit::Failure::error("not supported yet"))
}
