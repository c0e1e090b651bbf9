pub async fn save(_context: crate::cli::context::Context) -> crate::cli::exit::Outcome {
    Err(crate::cli::exit::Failure::error("not supported yet"))
}
