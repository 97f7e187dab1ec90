//! Which distribution this is, and what it calls the packages that set-up needs.

/// A distribution, as far as set-up has to tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    /// Debian 12: set-up does everything by itself.
    Bookworm,
    /// Debian 13 and later, Ubuntu and what descends from them.
    Apt,
    Fedora,
    Arch,
    Suse,
    Other,
}

impl Platform {
    /// The platform that we run on; `IOLAG_OS_RELEASE` names another file to read, for tests.
    pub fn detect() -> Self {
        let path = std::env::var_os("IOLAG_OS_RELEASE").unwrap_or_else(|| "/etc/os-release".into());
        Self::from_os_release(&std::fs::read_to_string(path).unwrap_or_default())
    }

    /// Reads os-release(5).
    fn from_os_release(text: &str) -> Self {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
                .map(|value| value.trim_matches('"').to_owned())
                .unwrap_or_default()
        };
        if field("ID") == "debian" && field("VERSION_ID") == "12" {
            return Self::Bookworm;
        }
        let ids = format!("{} {}", field("ID"), field("ID_LIKE"));
        for id in ids.split_whitespace() {
            match id {
                "debian" | "ubuntu" => return Self::Apt,
                "fedora" | "rhel" => return Self::Fedora,
                "arch" => return Self::Arch,
                "suse" | "opensuse" => return Self::Suse,
                _ => {}
            }
        }
        Self::Other
    }

    /// The command that installs what provides `tools`, each a program name.
    pub fn install_command(self, tools: &[&str]) -> Option<String> {
        let packages: Vec<&str> = tools.iter().map(|tool| self.package(tool)).collect();
        let packages = packages.join(" ");
        Some(match self {
            Self::Bookworm | Self::Apt => format!("sudo apt-get install {packages}"),
            Self::Fedora => format!("sudo dnf install {packages}"),
            Self::Arch => format!("sudo pacman -S --needed {packages}"),
            Self::Suse => format!("sudo zypper install {packages}"),
            Self::Other => return None,
        })
    }

    /// What the distribution calls the package that holds a program.
    fn package(self, tool: &str) -> &str {
        match (self, tool) {
            (Self::Bookworm | Self::Apt, "cc") => "build-essential",
            (_, "cc") => "gcc",
            (Self::Bookworm | Self::Apt, "qemu-system-x86_64") => "qemu-system-x86",
            (Self::Fedora, "qemu-system-x86_64") => "qemu-system-x86-core",
            (Self::Arch, "qemu-system-x86_64") => "qemu-system-x86",
            (Self::Suse, "qemu-system-x86_64") => "qemu-x86",
            (_, "mke2fs") => "e2fsprogs",
            (Self::Bookworm | Self::Apt, "xz") => "xz-utils",
            (Self::Bookworm | Self::Apt, "llvm-config") => "llvm-22-dev libzstd-dev zlib1g-dev",
            (Self::Fedora, "llvm-config") => "llvm-devel libzstd-devel zlib-devel",
            (Self::Arch, "llvm-config") => "llvm",
            (Self::Suse, "llvm-config") => "llvm22-devel libzstd-devel zlib-devel",
            (_, tool) => tool,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_are_told_apart() {
        for (text, expected) in [
            ("ID=debian\nVERSION_ID=\"12\"\n", Platform::Bookworm),
            ("ID=debian\nVERSION_ID=\"13\"\n", Platform::Apt),
            ("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", Platform::Apt),
            ("ID=fedora\n", Platform::Fedora),
            (
                "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n",
                Platform::Fedora,
            ),
            ("ID=arch\n", Platform::Arch),
            (
                "ID=\"opensuse-tumbleweed\"\nID_LIKE=\"opensuse suse\"\n",
                Platform::Suse,
            ),
            ("ID=nixos\n", Platform::Other),
            ("", Platform::Other),
        ] {
            assert_eq!(Platform::from_os_release(text), expected, "{text}");
        }
    }

    #[test]
    fn each_distribution_gets_its_own_command() {
        let command = |platform: Platform| platform.install_command(&["qemu-system-x86_64", "fio"]);
        assert_eq!(
            command(Platform::Apt).unwrap(),
            "sudo apt-get install qemu-system-x86 fio"
        );
        assert_eq!(
            command(Platform::Fedora).unwrap(),
            "sudo dnf install qemu-system-x86-core fio"
        );
        assert_eq!(
            command(Platform::Arch).unwrap(),
            "sudo pacman -S --needed qemu-system-x86 fio"
        );
        assert_eq!(
            command(Platform::Suse).unwrap(),
            "sudo zypper install qemu-x86 fio"
        );
        assert_eq!(command(Platform::Other), None);
    }
}
