"use strict";

// The viewer reads nothing but the document beside it: neither the page's query
// nor anything stored changes what it shows or where it sends.
(() => {
  // Descriptions are Markdown, and that is all they are here: tags are shown as
  // they are written, and pictures, which would be fetched, become links. What
  // stands in code is text already.
  const plain = (source) =>
    String(source)
      .split(/(```[\s\S]*?```|`[^`]*`)/)
      .map((part, i) => (i % 2 ? part : part.replace(/<(?=[a-z/!?])/gi, "&lt;").replace(/!\[/g, "[")))
      .join("");
  const words = (system) => ({
    wrapComponents: {
      Markdown: (Original) => (props) =>
        system.React.createElement(Original, { ...props, source: props.source && plain(props.source) }),
    },
  });
  const viewer = document.getElementById("viewer");
  window.SwaggerUIBundle({
    url: viewer.dataset.url,
    domNode: viewer,
    presets: [window.SwaggerUIBundle.presets.apis],
    plugins: [words],
    layout: "BaseLayout",
    deepLinking: false,
    docExpansion: "list",
    defaultModelsExpandDepth: -1,
    validatorUrl: null,
    queryConfigEnabled: false,
    persistAuthorization: false,
    withCredentials: false,
  });
})();
