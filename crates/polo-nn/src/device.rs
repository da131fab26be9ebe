//! Devices by name, as `--device` takes them.

use burn::tensor::Device;
#[cfg(any(feature = "cuda", feature = "vulkan"))]
use burn::tensor::{DeviceType, Tensor};
#[cfg(any(feature = "cuda", feature = "vulkan"))]
use polo_run::Kind;
use polo_run::{Problem, Result};

/// The device that `name` stands for: `cpu`, and with the matching cargo feature `cuda`, `cuda:1`, `vulkan`,
/// `vulkan:1`. Without a number it is the first one, which with Vulkan is the most powerful.
///
/// # Errors
/// An unknown name, a device that this build was compiled without, or one that is not there or does not work.
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
        "cpu" => Err(Problem::usage(format!("there is no device `{name}`")).hint("write cpu")),
        #[cfg(feature = "cuda")]
        "cuda" => open("cuda", DeviceType::Cuda, index),
        #[cfg(feature = "vulkan")]
        "vulkan" => open("vulkan", DeviceType::Vulkan, index),
        #[cfg(not(feature = "cuda"))]
        "cuda" => Err(built_without(kind)),
        #[cfg(not(feature = "vulkan"))]
        "vulkan" => Err(built_without(kind)),
        _ => Err(Problem::usage(format!("unknown device `{name}`"))
            .hint("choose cpu, cuda, cuda:N, vulkan or vulkan:N")),
    }
}

#[cfg(not(all(feature = "cuda", feature = "vulkan")))]
fn built_without(kind: &str) -> Problem {
    Problem::usage(format!("this program was built without `{kind}`"))
        .hint(format!("build it with: cargo build --release --features {kind}"))
}

/// Opens the GPU with this number among those of its kind by making it compute something.
#[cfg(any(feature = "cuda", feature = "vulkan"))]
fn open(name: &str, kind: DeviceType, index: usize) -> Result<Device> {
    let broken = |why: String| {
        Problem::new(Kind::System, format!("device `{name}:{index}` does not work: {why}")).hint(match name {
            "cuda" => "check with nvidia-smi that the driver runs, and that the CUDA toolkit (NVRTC and its headers) is installed; or use --device cpu",
            _ => "check with vulkaninfo --summary that the driver runs; or use --device cpu",
        })
    };
    let devices = caught(|| Device::enumerate(kind).into_vec()).map_err(broken)?;
    let count = devices.len();
    let Some(device) = devices.into_iter().nth(index) else {
        let problem =
            Problem::new(Kind::System, format!("there is no device `{name}:{index}` on this machine"));
        return Err(problem.hint(match (count, name) {
            (0, "cuda") => "no NVIDIA driver answers (does nvidia-smi?); use --device cpu".to_owned(),
            (0, _) => "no Vulkan driver answers (does vulkaninfo --summary?); use --device cpu".to_owned(),
            (1, _) => format!("there is {name}:0 alone"),
            _ => format!("there are {name}:0 to {name}:{}", count - 1),
        }));
    };
    let ones = caught(|| Tensor::<1>::ones([3], &device).try_into_data()).map_err(broken)?;
    match ones.map(|data| data.try_to_vec::<f32>()) {
        Ok(Ok(ones)) if ones == [1.0; 3] => Ok(device),
        Ok(numbers) => Err(broken(format!("it takes [1, 1, 1] for {numbers:?}"))),
        Err(error) => Err(broken(error.to_string())),
    }
}

/// Runs `work`. Drivers report what they miss by panicking, which must reach a person as an error and nothing else.
#[cfg(any(feature = "cuda", feature = "vulkan"))]
fn caught<R>(work: impl FnOnce() -> R) -> std::result::Result<R, String> {
    use std::panic;
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let result = panic::catch_unwind(panic::AssertUnwindSafe(work));
    panic::set_hook(hook);
    result.map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
        text.lines().next().unwrap_or_default().to_owned()
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
    use std::{cell::Cell, sync::LazyLock};

    use burn::tensor::Tensor;

    use crate::host;

    thread_local! {
        pub static AS_ON_OTHER_DEVICES: Cell<bool> = const { Cell::new(false) };
    }

    /// The device that the CPU's kernels are compared with: what `POLO_TEST_DEVICE` names, or else the CPU, there with
    /// the expressions that every other device uses.
    static OTHER: LazyLock<super::Device> =
        LazyLock::new(|| super::parse(&std::env::var("POLO_TEST_DEVICE").unwrap_or("cpu".into())).unwrap());

    /// Runs `work`, whose inputs come from [`on_other_device`], with the expressions that every device but the CPU uses.
    pub fn as_on_other_devices<R>(work: impl FnOnce() -> R) -> R {
        AS_ON_OTHER_DEVICES.set(true);
        let result = work();
        AS_ON_OTHER_DEVICES.set(false);
        result
    }

    pub fn other_device() -> &'static super::Device {
        &OTHER
    }

    /// How far off the other device may be, as a multiple of f32's rounding: CUDA multiplies f32 matrices on tensor cores,
    /// in TF32, with 13 bits less.
    pub fn rounding() -> f32 {
        if std::env::var("POLO_TEST_DEVICE").is_ok_and(|name| name.starts_with("cuda")) { 300.0 } else { 1.0 }
    }

    pub fn on_other_device(tensor: &Tensor<2>) -> Tensor<2> {
        host::tensor(host::numbers(tensor), tensor.dims(), &OTHER)
    }

    #[test]
    fn devices_that_cannot_be_had_are_refused() {
        let check = |name: &str, expected: &[&str]| {
            let problem = super::parse(name).unwrap_err();
            let said = format!("{problem} ({})", problem.hint_text().unwrap_or_default());
            for part in expected {
                assert!(said.contains(part), "`{part}` is not in: {said}");
            }
        };
        check("abacus", &["unknown device `abacus`", "choose cpu, cuda"]);
        check("cpu:1", &["no device `cpu:1`"]);
        check("cuda:first", &["`first`", "cuda:0"]);
        for (kind, built) in [("cuda", cfg!(feature = "cuda")), ("vulkan", cfg!(feature = "vulkan"))] {
            let expected = match built {
                true => format!("there is no device `{kind}:4000`"),
                false => format!("--features {kind}"),
            };
            check(&format!("{kind}:4000"), &[&expected]);
        }
    }
}
