//! Between tensors and plain slices. Kernels of the CPU read and write slices; everything else sees tensors.

use burn::{
    backend::{Flex, tensor::FloatTensor},
    tensor::{Device, Tensor, TensorData},
};

/// A tensor's numbers as a row-major slice of the host's memory, shared without a copy.
pub struct Host(FloatTensor<Flex>);

impl Host {
    /// The numbers of a CPU tensor; `None` on any other device.
    pub fn of<const D: usize>(tensor: &Tensor<D>) -> Option<Self> {
        if !crate::device::is_cpu(&tensor.device()) {
            return None;
        }
        let primitive = tensor.clone().try_into_primitive::<Flex>().ok()?;
        Some(Self(if primitive.is_contiguous() { primitive } else { primitive.to_contiguous() }))
    }

    /// Row-major numbers.
    pub fn slice(&self) -> &[f32] {
        let start = self.0.layout().start_offset();
        let length = self.0.layout().num_elements();
        &self.0.storage::<f32>()[start..start + length]
    }
}

/// A tensor of shape `[rows, columns]` on `device` from row-major numbers; free on the CPU.
pub fn tensor(numbers: Vec<f32>, shape: [usize; 2], device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(numbers, shape), device)
}

/// The numbers of a tensor, row-major, wherever it lives.
pub fn numbers<const D: usize>(tensor: &Tensor<D>) -> Vec<f32> {
    match Host::of(tensor) {
        Some(host) => host.slice().to_vec(),
        None => tensor.to_data().convert::<f32>().as_slice::<f32>().map(<[f32]>::to_vec).unwrap_or_default(),
    }
}

/// Changes a CPU tensor's numbers in place (copying them first if they are shared). `false` on other devices.
pub fn update(tensor: &mut Tensor<2>, change: impl FnOnce(&mut [f32])) -> bool {
    let device = tensor.device();
    if !crate::device::is_cpu(&device) {
        return false;
    }
    let placeholder = self::tensor(vec![0.0], [1, 1], &device);
    let taken = std::mem::replace(tensor, placeholder);
    let mut primitive = match taken.try_into_primitive::<Flex>() {
        Ok(primitive) if primitive.is_contiguous() && primitive.layout().start_offset() == 0 => primitive,
        Ok(primitive) => primitive.to_contiguous(),
        Err(_) => return false,
    };
    change(primitive.storage_mut::<f32>());
    *tensor = Tensor::from_primitive::<Flex>(primitive);
    true
}
