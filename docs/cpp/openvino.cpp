// A classifier exported by litevit, in OpenVINO's C++ API.
//
//   litevit export lvt --format openvino --image-size 224 --batch-size 1
//   ./openvino lvt.xml < image.f32      # 3 x 224 x 224 normalised float32, channel by channel
//
// With the wheel of pip (OV=$(python -c "import openvino, os; print(os.path.dirname(openvino.__file__))")):
//   g++ -std=c++17 -O2 openvino.cpp -I$OV/include $OV/libs/libopenvino.so.* -Wl,-rpath,$OV/libs -o openvino
#include <openvino/openvino.hpp>

#include <algorithm>
#include <iomanip>
#include <iostream>

int main(int count, char** arguments) try {
    if (count != 2) {
        std::cerr << "usage: openvino MODEL.xml < IMAGE.f32\n";
        return 2;
    }
    ov::Core core;
    auto model = core.read_model(arguments[1]);
    // As litevit proved the file: left alone, the plug-in takes bfloat16 where the processor has units for it.
    auto compiled = core.compile_model(model, "CPU", ov::hint::inference_precision(ov::element::f32));
    auto request = compiled.create_infer_request();

    ov::Tensor images(ov::element::f32, compiled.input("images").get_shape());
    const auto bytes = static_cast<std::streamsize>(images.get_byte_size());
    if (!std::cin.read(reinterpret_cast<char*>(images.data<float>()), bytes)) {
        std::cerr << "the image has " << std::cin.gcount() << " of " << bytes << " bytes\n";
        return 1;
    }
    request.set_tensor("images", images);
    request.infer();

    const ov::Tensor logits = request.get_tensor("logits");
    const float* first = logits.data<float>();
    const float* best = std::max_element(first, first + logits.get_size());
    std::cout << "task " << model->get_rt_info<std::string>("litevit", "task") << "\n"
              << "class " << best - first << "\n"
              << std::setprecision(9);
    std::for_each(first, first + logits.get_size(), [](float x) { std::cout << x << "\n"; });
} catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
}
