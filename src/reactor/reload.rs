//! What is read again at a reload: the certificates of all listeners.

use super::loop_state::LoopState;

impl LoopState {
    /// Notes a listener's certificate, for [`reload`](Self::reload).
    #[cfg(feature = "tls")]
    pub(crate) fn add_certificate(&mut self, _tls: Option<&crate::net::tls::Tls>) {
        #[cfg(feature = "signals")]
        if let Some(tls) = _tls
            && !self.certificates.iter().any(|known| known.is(tls))
        {
            self.certificates.push(tls.clone());
        }
    }

    /// Reads the certificates of all listeners again.
    #[cfg(feature = "signals")]
    pub(crate) fn reload(&mut self) {
        // Reading takes one descriptor at a time, and there may be no other.
        self.spare_descriptor.give_up();
        #[cfg(feature = "tls")]
        for tls in &self.certificates {
            match tls.reload() {
                Ok(()) => {
                    let file = tls.certificate().display();
                    log::info!("hangup signal: {file} reloaded, for those who come now");
                }
                Err(error) => log::error!("hangup signal: the old certificate stays: {error}"),
            }
        }
        self.spare_descriptor.take_back();
        #[cfg(feature = "tls")]
        if !self.certificates.is_empty() {
            return;
        }
        log::info!("hangup signal: nothing to reload");
    }
}
