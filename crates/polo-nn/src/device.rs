//! Devices by name, as `--device` takes them.

use burn::tensor::Device;
use polo_run::{Kind, Problem, Result};

/// The device that `name` stands for: `cpu`, and with the matching cargo feature `cuda`, `cuda:1`, `vulkan`.
///
/// # Errors
/// An unknown name, or a device that this build was compiled without.
pub fn parse(name: &str) -> Result<Device> {
    let (kind, index) = match name.split_once(':') {
        Some((kind, index)) => {
            let index = index.parse::<usize>().map_err(|_| {
                Problem::usage(format!("`{index}` in device `{name}` is not a device number"))
                    .hint("write e.g. cuda:0")
            })?;
            (kind, index)
        }
        None => (name, 0),
    };
    match kind {
        "cpu" if index == 0 => Ok(Device::flex()),
        #[cfg(feature = "cuda")]
        "cuda" => open(name, move || Device::cuda(index)),
        #[cfg(feature = "vulkan")]
        "vulkan" => open(name, move || {
            use burn::tensor::DeviceKind;
            let kind =
                if index == 0 { DeviceKind::DefaultDevice } else { DeviceKind::DiscreteGpu(index - 1) };
            Device::vulkan(kind)
        }),
        "cuda" | "vulkan" => Err(Problem::usage(format!("this program was built without `{kind}`"))
            .hint(format!("build it with: cargo build --release --features {kind}"))),
        _ => Err(Problem::new(Kind::Usage, format!("unknown device `{name}`"))
            .hint("choose cpu, cuda, cuda:N or vulkan")),
    }
}

/// Opens a GPU by making it compute something: the drivers report a missing card by panicking, which must reach
/// a person as an error.
#[cfg(any(feature = "cuda", feature = "vulkan"))]
fn open(name: &str, device: impl FnOnce() -> Device + std::panic::UnwindSafe) -> Result<Device> {
    let opened = std::panic::catch_unwind(|| {
        let device = device();
        let one: burn::tensor::Tensor<1> = burn::tensor::Tensor::ones([1], &device);
        let _ = one.into_data();
        device
    });
    opened.map_err(|_| {
        Problem::new(Kind::System, format!("device `{name}` does not answer"))
            .hint("check the driver (nvidia-smi, vulkaninfo), or use --device cpu")
    })
}

/// Whether tensors of this device are plain memory of the host.
pub fn is_cpu(device: &Device) -> bool {
    #[cfg(test)]
    if tests::AS_ON_OTHER_DEVICES.get() {
        return false;
    }
    *device == Device::flex()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    thread_local! {
        pub static AS_ON_OTHER_DEVICES: Cell<bool> = const { Cell::new(false) };
    }

    /// Runs `work` with the expressions that every device but the CPU uses.
    pub fn as_on_other_devices<R>(work: impl FnOnce() -> R) -> R {
        AS_ON_OTHER_DEVICES.set(true);
        let result = work();
        AS_ON_OTHER_DEVICES.set(false);
        result
    }
}
