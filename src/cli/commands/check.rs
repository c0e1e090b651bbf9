pub async fn perf(_context: crate::cli::context::Context) -> crate::cli::exit::Outcome {
    Err(crate::cli::exit::Failure::error("not supported yet"))
}
pub async fn data_scale(_context: crate::cli::context::Context) -> crate::cli::exit::Outcome {
    Err(crate::cli::exit::Failure::error("not supported yet"))
}
