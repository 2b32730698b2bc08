// A classifier exported by litevit, in ONNX Runtime's C++ API.
//
//   litevit export lvt --format onnx --image-size 224 --batch-size 1
//   ./onnxruntime lvt.onnx < image.f32      # 3 x 224 x 224 normalised float32, channel by channel
//
// With Debian's packages (13 or later; ONNX Runtime's own archives lie alike):
//   apt install libonnxruntime-dev
//   g++ -std=c++17 -O2 onnxruntime.cpp -I/usr/include/onnxruntime -lonnxruntime -o onnxruntime
// pip's wheel brings the library (onnxruntime/capi/libonnxruntime.so.*), not the headers; headers of an older version
// work with it.
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <functional>
#include <iomanip>
#include <iostream>
#include <numeric>
#include <vector>

int main(int count, char** arguments) try {
    if (count != 2) {
        std::cerr << "usage: onnxruntime MODEL.onnx < IMAGE.f32\n";
        return 2;
    }
    Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "litevit");
    Ort::SessionOptions options;
    Ort::Session session(env, arguments[1], options);  // on Windows the path is of wchar_t
    Ort::AllocatorWithDefaultOptions allocator;

    // 1 x 3 x H x W, as the file was exported; of free sides it says -1.
    const auto shape = session.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();
    if (*std::min_element(shape.begin(), shape.end()) < 1) {
        std::cerr << "this example wants a file of one size: export with --image-size and --batch-size\n";
        return 1;
    }
    std::vector<float> image(std::accumulate(shape.begin(), shape.end(), std::size_t{1}, std::multiplies<>()));
    const auto bytes = static_cast<std::streamsize>(image.size() * sizeof(float));
    if (!std::cin.read(reinterpret_cast<char*>(image.data()), bytes)) {
        std::cerr << "the image has " << std::cin.gcount() << " of " << bytes << " bytes\n";
        return 1;
    }
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    auto images = Ort::Value::CreateTensor<float>(memory, image.data(), image.size(), shape.data(), shape.size());
    const char* const inputs[] = {"images"};
    const char* const outputs[] = {"logits"};
    auto found = session.Run(Ort::RunOptions{nullptr}, inputs, &images, 1, outputs, 1);

    const float* first = found[0].GetTensorData<float>();
    const float* last = first + found[0].GetTensorTypeAndShapeInfo().GetElementCount();
    const auto task = session.GetModelMetadata().LookupCustomMetadataMapAllocated("task", allocator);
    std::cout << "task " << task.get() << "\n"
              << "class " << std::max_element(first, last) - first << "\n"
              << std::setprecision(9);
    std::for_each(first, last, [](float x) { std::cout << x << "\n"; });
} catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
}
