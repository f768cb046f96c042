//! The usual reasons to stop.

/// Resolves at the first SIGTERM or SIGINT (Ctrl-C); on other systems than Unix, at Ctrl-C.
///
/// If the handlers cannot be installed it never resolves, and says so in the log.
pub async fn shutdown_signal() {
    #[cfg(unix)]
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(error) => give_up(&error).await,
        }
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<()>();
    let interrupted = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            give_up(&error).await;
        }
    };
    tokio::select! {
        () = terminated => {}
        () = interrupted => {}
    }
}

async fn give_up(error: &std::io::Error) {
    tracing::error!(%error, "cannot listen for signals: this worker will not stop gracefully");
    std::future::pending::<()>().await;
}
