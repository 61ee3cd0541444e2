//! Upgrades of the program: each starts `reactor` once more, which goes on with the clients.

mod asking;
