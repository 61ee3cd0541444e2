//! Names, and who has which where no two may have the same.

use std::collections::HashMap;

use unicode_normalization::UnicodeNormalization;

use super::bus::MemberId;

/// The name of who has not told one.
pub(in crate::services) const ANONYMOUS: &str = "An anonymous user";
/// What is [compared](folded) of that one, which nobody can take.
pub(in crate::services) const NOBODYS: &str = "an anonymous user";
/// How many characters of a name are kept.
pub(in crate::services) const NAME_LENGTH: usize = 64;

/// What somebody is called.
#[derive(Clone, Debug)]
pub(in crate::services) struct Name {
    pub shown: String,
    /// What is [compared](folded) of it. Empty where any number may have the same name.
    compared: String,
}

/// Whose each name is, by what is [compared](folded) of it; none if any number may have the same.
#[derive(Clone, Debug, Default)]
pub(in crate::services) struct Names(Option<HashMap<String, MemberId>>);

impl Names {
    pub(in crate::services) fn unique() -> Names {
        Names(Some(HashMap::new()))
    }

    /// The same, without any.
    pub(in crate::services) fn none(&self) -> Names {
        Names(self.0.as_ref().map(|_| HashMap::new()))
    }

    pub(in crate::services) fn are_unique(&self) -> bool {
        self.0.is_some()
    }

    /// A name as it is needed here.
    pub(in crate::services) fn name(&self, shown: String) -> Box<Name> {
        let compared = self.0.as_ref().map_or_else(String::new, |_| folded(&shown));
        Box::new(Name { shown, compared })
    }

    /// Whether somebody else has the name.
    pub(in crate::services) fn is_taken(&self, name: &Name, by: MemberId) -> bool {
        let Some(names) = &self.0 else { return false };
        let owner = names.get(&name.compared);
        owner.is_some_and(|owner| *owner != by) || name.compared == NOBODYS
    }

    /// Somebody has another name, or none. The former one may be another's from now on.
    pub(in crate::services) fn rename(
        &mut self,
        member: MemberId,
        former: Option<&Name>,
        name: Option<&Name>,
    ) {
        let Some(names) = &mut self.0 else { return };
        if let Some(former) = former.filter(|name| names.get(&name.compared) == Some(&member)) {
            names.remove(&former.compared);
        }
        if let Some(name) = name {
            names.insert(name.compared.clone(), member);
        }
    }
}

/// What is compared of a name: NFKC, in upper and then in lower case, since there are letters that only
/// one of the two makes the same, and NFKC again. Without what a [printable](crate::text::printable)
/// name may have and nobody sees: joiners and variation selectors.
///
/// Of what the first NFKC makes, as many characters count as a name may have. There are letters of which
/// it makes eighteen, and a thousand lines of those would keep all others waiting.
pub(in crate::services) fn folded(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    let seen =
        name.chars().filter(|c| !matches!(c, '\u{200c}' | '\u{200d}' | '\u{fe0e}' | '\u{fe0f}'));
    let name: String = seen.nfkc().take(NAME_LENGTH).collect();
    name.to_uppercase().to_lowercase().nfkc().collect()
}
