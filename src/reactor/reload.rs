//! What is read again at a reload: the files of the layers of all listeners.

#[cfg(feature = "signals")]
use std::fs::File;
use std::rc::Rc;

use super::loop_state::LoopState;
use crate::net::layer::Acceptor;

impl LoopState {
    /// Notes a listener's layers, for [`reload`](Self::reload).
    #[cfg_attr(not(feature = "signals"), expect(unused_variables, clippy::unused_self))]
    pub(crate) fn add_layers(&mut self, layers: &[Rc<dyn Acceptor>]) {
        #[cfg(feature = "signals")]
        for layer in layers {
            if !self.layers.iter().any(|known| Rc::ptr_eq(known, layer)) {
                self.layers.push(Rc::clone(layer));
            }
        }
    }

    /// Reads the files of all layers again.
    #[cfg(feature = "signals")]
    pub(crate) fn reload(&mut self) {
        // Reading takes one descriptor at a time, and there may be no other.
        drop(self.reserve.take());
        let mut any = false;
        for layer in &self.layers {
            match layer.reload() {
                Ok(false) => continue,
                Ok(true) => log::info!("hangup signal: {layer:?} reloaded, for those who come now"),
                Err(error) => log::error!("hangup signal: the old certificate stays: {error}"),
            }
            any = true;
        }
        self.reserve = File::open("/dev/null").ok();
        if !any {
            log::info!("hangup signal: nothing to reload");
        }
    }
}
