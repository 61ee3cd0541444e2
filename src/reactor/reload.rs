//! What is read again at a reload: the files of the layers of all listeners.

use std::rc::Rc;

use super::Reactor;
use super::loop_state::LoopState;
use crate::net::layer::Acceptor;

impl Reactor<'_> {
    /// Reads the files of the layers of all listeners again, such as certificates. Records of the log begin
    /// with `why`.
    pub(super) fn reload_layers(&mut self, why: &str) {
        let mut layers = Vec::new();
        self.services.iter().for_each(|service| service.list_layers(&mut layers));
        self.state.reload(&layers, why);
    }
}

/// Adds the layers that are not in the list yet: several listeners may share one.
pub(super) fn add_layers(all: &mut Vec<Rc<dyn Acceptor>>, layers: &[Rc<dyn Acceptor>]) {
    for layer in layers {
        if !all.iter().any(|known| Rc::ptr_eq(known, layer)) {
            all.push(Rc::clone(layer));
        }
    }
}

impl LoopState {
    fn reload(&mut self, layers: &[Rc<dyn Acceptor>], why: &str) {
        // Reading takes one descriptor at a time, and there may be no other.
        self.spare_descriptor.give_up();
        let mut any = false;
        for layer in layers {
            match layer.reload() {
                Ok(None) => continue,
                Ok(Some(file)) => {
                    let file = file.display();
                    log::info!("{why}{file} reloaded, for those who come now");
                }
                Err(error) => log::error!("{why}what was read before stays in use: {error}"),
            }
            any = true;
        }
        self.spare_descriptor.take_back();
        if !any {
            log::info!("{why}nothing to reload");
        }
    }
}
