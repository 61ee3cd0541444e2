//! What is read again at a reload: the files of the layers of all listeners.

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
        self.spare_descriptor.give_up();
        let mut any = false;
        for layer in &self.layers {
            match layer.reload() {
                Ok(None) => continue,
                Ok(Some(file)) => {
                    let file = file.display();
                    log::info!("hangup signal: {file} reloaded, for those who come now");
                }
                Err(error) => {
                    log::error!("hangup signal: what was read before stays in use: {error}")
                }
            }
            any = true;
        }
        self.spare_descriptor.take_back();
        if !any {
            log::info!("hangup signal: nothing to reload");
        }
    }
}
