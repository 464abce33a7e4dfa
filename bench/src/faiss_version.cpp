// faiss's C interface does not tell compile options.

#include <string>

extern "C" const char* faiss_get_version();

namespace faiss {
std::string get_compile_options();
}

extern "C" const char* foveal_faiss_version() {
    static const std::string version =
        std::string(faiss_get_version()) + " " + faiss::get_compile_options();
    return version.c_str();
}
