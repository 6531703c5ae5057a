// A daemon for the examples in the documentation, so that each can be run as it stands. `include!` makes of this the path of its socket,
// and what ends it when it is dropped. Without the feature `daemon` the example is compiled and ends here.
{
    #[cfg(feature = "daemon")]
    {
        struct Running {
            handle: sockexec::daemon::Handle,
            thread: Option<std::thread::JoinHandle<std::io::Result<()>>>,
            _directory: tempfile::TempDir,
        }
        impl Drop for Running {
            fn drop(&mut self) {
                self.handle.shut_down();
                let ended = self.thread.take().map(std::thread::JoinHandle::join);
                assert!(matches!(ended, Some(Ok(Ok(())))) || std::thread::panicking(), "the daemon: {ended:?}");
            }
        }
        let directory = tempfile::tempdir()?;
        let socket = directory.path().join("exec.sock");
        let daemon = sockexec::Daemon::builder().bind(&socket)?;
        let handle = daemon.handle();
        let thread = Some(std::thread::spawn(move || daemon.run()));
        (socket, Running { handle, thread, _directory: directory })
    }
    #[cfg(not(feature = "daemon"))]
    {
        if true {
            return Ok(());
        }
        (std::path::PathBuf::new(), ())
    }
}
